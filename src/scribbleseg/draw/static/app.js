<title>
