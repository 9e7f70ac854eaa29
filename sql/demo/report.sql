-- The report: what JasperReports sends over its one JDBC connection, here by reference number.

SELECT r.reference_number,
       CONCAT(l.label, ' ', r.first_name, ' ', r.last_name) AS full_name,
       r.birth_date,
       r.national_id
FROM resources r
LEFT JOIN labels_lookup l ON r.label_code = l.code
WHERE r.reference_number = $1;
